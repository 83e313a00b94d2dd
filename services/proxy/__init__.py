"""A re-encryption proxy: holds one share of each grant, and uses it only for what patient and recipient signed for."""
