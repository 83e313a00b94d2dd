"""Every refusal around FHIR data, each with a code of its own.

No message repeats what the input said: an error may end up in a log or on a screen that others see, and the
input is a health record.
"""

from __future__ import annotations

from shared.errors import Malformed, TooLarge


class DocumentTooLarge(TooLarge):
    code = "document_too_large"
    title = "The file is larger than a Bundle may be. Split it into several Bundles."


class ResourceTooLarge(TooLarge):
    code = "resource_too_large"
    title = "One resource is larger than a record may be."


class TooManyEntries(TooLarge):
    code = "too_many_entries"
    title = "The Bundle has more entries than one import accepts. Split it into several Bundles."


class TooDeep(Malformed):
    code = "too_deep"
    title = "The JSON is nested more deeply than FHIR data ever needs."


class ByteOrderMark(Malformed):
    code = "byte_order_mark"
    title = "The file begins with a byte order mark, which JSON forbids (RFC 8259 section 8.1)."


class NotUtf8(Malformed):
    code = "not_utf8"
    title = "The text is not valid UTF-8."


class NotJson(Malformed):
    code = "not_json"
    title = "The file is not JSON."


class DuplicateMember(Malformed):
    code = "duplicate_member"
    title = "An object has two members of the same name, so what it says depends on who reads it."


class NotANumber(Malformed):
    code = "not_a_number"
    title = "NaN and Infinity are not numbers in JSON, and no measurement in FHIR."


class NotABundle(Malformed):
    code = "not_a_bundle"
    title = "The file is not a FHIR Bundle."


class UnsupportedBundleType(Malformed):
    code = "unsupported_bundle_type"
    title = "Only transaction, batch, collection, document, searchset and history Bundles hold records to import."


class MalformedBundle(Malformed):
    code = "malformed_bundle"
    title = "The Bundle is not built as FHIR R4 says."


class EntryWithoutResource(Malformed):
    code = "entry_without_resource"
    title = "An entry of the Bundle holds no resource; a deletion cannot be imported."


class MalformedResource(Malformed):
    code = "malformed_resource"
    title = "The value cannot be written as a FHIR resource in JSON."


class InvalidResourceType(Malformed):
    code = "invalid_resource_type"
    title = "A resource has no valid resourceType."


class InvalidScopeName(Malformed):
    code = "invalid_scope_name"
    title = "A scope's name is lower-case letters, digits and single hyphens between them, at most 64 characters."


class InvalidOverride(Malformed):
    code = "invalid_override"
    title = "A filing rule needs a resource type, a coding, or both; a coding needs its system and its code."


class InvalidVocabulary(Malformed):
    code = "invalid_vocabulary"
    title = "The table of scopes contradicts itself."
