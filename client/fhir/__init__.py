"""FHIR R4 at the client's edge: from a Bundle to records and back, and the scope each resource is filed under.

| module | what it holds |
| --- | --- |
| `resource` | one resource as JSON: strict reading, exact decimals, writing, equality |
| `bundle` | a Bundle as a list of resources with their fullUrl, and a list as a `collection` Bundle |
| `scopes` | the vocabulary of scopes and the rules that file a resource under one; the data is `scopes.toml` |
| `references` | which resource of a Bundle reveals which other one |
| `summary` | a short title and a date for headers and tables |
| `make_demo_bundle` | writes `demo_bundle.json`, the fictitious patient of the demonstration |
| `errors` | every refusal, each with its own code |

Everything here is pure: no network, no keys, no clock. Source of the formats: HL7 FHIR R4 (v4.0.1).
"""
