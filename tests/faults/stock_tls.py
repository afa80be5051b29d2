"""A storage SCP of pynetdicom with TLS as its documentation has it: PORT FOLDER CERTIFICATES."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification


def stored(event: evt.Event, folder: Path) -> int:
    path = folder / event.request.AffectedSOPInstanceUID
    path.write_bytes(event.encoded_dataset())
    return 0


def main() -> None:
    """Until it is ended."""
    port, folder, certificates = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem")
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / "node.pem", certificates / "node.key")
    entity = AE("STORESCP")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(Verification)
    entity.start_server(
        ("127.0.0.1", port),
        evt_handlers=[(evt.EVT_C_STORE, stored, [folder])],
        ssl_context=context,
    )


if __name__ == "__main__":
    main()
