"""Campaigns: what to ask (domains), how much (plan), and the engine that asks, judges and stores."""
