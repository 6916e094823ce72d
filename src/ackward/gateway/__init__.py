"""Split TCP: gateways that end connections near both ends and join over authenticated legs."""
