"""What link and session both need to deliver: recovery by RFC 9002, acknowledgements, rates and turns. Pure."""
