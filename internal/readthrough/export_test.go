package readthrough

import "time"

// SetClock replaces the clock of a cache that nobody uses yet.
func (c *Cache) SetClock(now func() time.Time) { c.now = now }

// Pause is how long nothing is written to a cache that could not be written.
const Pause = pause
