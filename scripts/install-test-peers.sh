#!/usr/bin/env bash
# Installs the foreign programs of the tests: DCMTK and Orthanc with DICOMweb to talk to, strace, and
# what makes the file systems of the power cuts.
# Needs Debian or Ubuntu, and root. Where either is missing it says so and ends well: the tests
# that want a program skip without it. A second run changes nothing.
set -euo pipefail

wanted=(dcmtk orthanc orthanc-dicomweb strace e2fsprogs xfsprogs)

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "install-test-peers: no apt here; tests with ${wanted[*]} will skip"
  exit 0
fi
if [ ${#missing[@]} -eq 0 ]; then
  echo "install-test-peers: all there: ${wanted[*]}"
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "install-test-peers: not root, so ${missing[*]} cannot be installed; tests with them will skip"
  exit 0
fi

# The packages' services must not start: the tests start their own, on ports of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
install=(apt-get install --yes --quiet --no-install-recommends "${missing[@]}")
if ! "${install[@]}"; then
  apt-get update --quiet && "${install[@]}" || {
    echo "install-test-peers: apt could not install ${missing[*]}; tests with them will skip"
    exit 0
  }
fi
echo "install-test-peers: installed ${missing[*]}"
