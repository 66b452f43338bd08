package observer

// Hold has an observer let no more than n attempts wait for the server.
func Hold(c *Config, n int) { c.hold = n }
