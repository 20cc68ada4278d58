package registrytest

import (
	"io"
	"log"
)

// quiet is for a server whose connections break on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
