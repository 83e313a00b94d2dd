"""The only door to Umbral, to authenticated encryption and to key derivation.

    errors       what can be refused, each class with a stable code
    umbral       threshold proxy re-encryption: keys, capsules, kfrags, cfrags, in their fixed-length wire form
    derivation   a party's one seed, and every key derived from it
    signing      Ed25519: identity keys and signed statements
    sealing      X25519 sealed boxes: a share on its way to its proxy
    aead         XChaCha20-Poly1305 for one message
    stream       STREAM: a payload of any size in chunks
    padding      Padmé: lengths that say little
    record       a record at rest, put together from the above
    wireform     the form of Umbral's objects, byte by byte            (inside this package only)
    secrecy      what keeps a secret from being shown by accident      (inside this package only)
    engines      which implementation of Umbral is running; `use_engine` for tests and benchmarks

Modules are imported by name (`from shared.crypto import umbral`); importing the package loads none of them, and no
engine is loaded before its first use.
"""
