//go:build careless

package main

import "time"

// stale is the mistake of this build: it was switched off for a test, once, and stayed so.
func stale(time.Duration) bool { return false }
