package server_test

import (
	"github.com/dogestry/dogestry/internal/registry/server"
	"github.com/dogestry/dogestry/internal/repo"
)

// served completes the options of open.
func served(*server.Options, *repo.Repo) {}
