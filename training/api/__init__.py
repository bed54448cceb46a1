"""The API of what machines learn: researchers and admins. Each begins with the getter that authorises."""
