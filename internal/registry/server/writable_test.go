package server_test

import (
	"github.com/dogestry/dogestry/internal/registry/server"
	"github.com/dogestry/dogestry/internal/repo"
)

// served completes the options of open.
func served(o *server.Options, in *repo.Repo) { o.To = in }
