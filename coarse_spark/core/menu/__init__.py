"""Menus: which K treatments to offer, and who gets which."""
