"""The records service: it keeps ciphertext and consent for patients, and holds no key at all."""
