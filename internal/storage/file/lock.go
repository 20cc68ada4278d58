package file

// lockResult is what tryLock found.
type lockResult int

const (
	lockTaken       lockResult = iota // ours until the file is closed or the process ends
	lockBusy                          // another open file has it, in this process or another
	lockUnsupported                   // files cannot be locked here
)
