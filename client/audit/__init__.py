"""The patient's checked audit: what all logs say of one patient, proven by each and compared with the others.

| module | |
| --- | --- |
| `chain` | pure: one log's events for one subject, from 1 on, each in the tree |
| `events` | what the services call what they do, and what people call it |
| `story` | pure: the logs compared with each other and with what the patient has signed |
| `gather` | fetches all logs and their proofs |
| `report` | the story for people and for programs |
| `fhir` | the same as FHIR AuditEvent and Consent |
"""
