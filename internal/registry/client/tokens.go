package client

import (
	"context"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// What a registry remembers that is asked by others: repositories and digests are
// some hundred bytes each, tokens some thousand.
const (
	mostRepositories = 1 << 10
	mostHomes        = 64 << 10
	mostTokens       = 1 << 10
)

// tokenCache is an auth.Cache that forgets all when it has got many: those of any
// name that somebody asks for are kept in it.
type tokenCache struct {
	mu sync.RWMutex
	auth.Cache
	set int // since it forgot
}

func (c *tokenCache) current() auth.Cache {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.Cache
}

// GetScheme implements auth.Cache.
func (c *tokenCache) GetScheme(ctx context.Context, registry string) (auth.Scheme, error) {
	return c.current().GetScheme(ctx, registry)
}

// GetToken implements auth.Cache.
func (c *tokenCache) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	return c.current().GetToken(ctx, registry, scheme, key)
}

// Set implements auth.Cache.
func (c *tokenCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	c.mu.Lock()
	if c.set++; c.set > mostTokens {
		c.Cache, c.set = auth.NewCache(), 1
	}
	cache := c.Cache
	c.mu.Unlock()
	return cache.Set(ctx, registry, scheme, key, fetch)
}
