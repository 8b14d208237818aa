"""The bare simulator: a feed of 600 messages over one link, with nothing to judge."""
