"""The codes of audit messages (PS3.16 Annex D, RFC 3881; value sets: PS3.15 §A.5.1.2)."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """A code of PS3.16, or of RFC 3881 (PS3.15 §A.5.1.1: CodedValueType)."""

    value: str
    meaning: str
    system: str = "DCM"


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
EXPORT = Code("110106", "Export")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")  # these four: PS3.16 CID 403
SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
RECORDING_STOPPED = Code("110133", "Audit Recording Stopped")

APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
DESTINATION_MEDIA = Code("110154", "Destination Media")
MEDIA_URI = Code("110037", "URI")

STUDY_UID = Code("110180", "Study Instance UID")
CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")

APPLICATION_SERVER = "4"  # of the source: PS3.15 §A.5.1.2.1
PERSON, SYSTEM = "1", "2"  # of an object
PATIENT, REPORT, SECURITY_RESOURCE = "1", "3", "13"  # its role: PS3.15 §A.5.1.2.2
