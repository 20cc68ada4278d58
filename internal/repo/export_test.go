package repo

// SetPieceSize makes the pieces of uploads smaller.
func (r *Repo) SetPieceSize(size int64) { r.pieceSize = size }
