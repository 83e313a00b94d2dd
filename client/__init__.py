"""The patient's and the recipient's side: the only place where private keys live."""
