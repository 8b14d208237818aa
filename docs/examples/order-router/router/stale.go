//go:build !careless

package main

import "time"

func stale(age time.Duration) bool { return age > staleAfter }
