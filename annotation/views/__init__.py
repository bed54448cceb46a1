"""Pages of what people judge. Each begins with the getter that authorises."""
