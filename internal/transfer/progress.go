package transfer

// Progress is told what moves, so that nobody waits in silence. Its methods are
// safe for concurrent use and return at once.
type Progress interface {
	// Status says what dogestry waits for ("the engine is exporting myapp:1"),
	// until the next call. An empty text ends it.
	Status(text string)

	// Note says something that stays on the screen, one line.
	Note(text string)

	// Layer announces a layer of an image that is to move: name is the short
	// diffID, size its decoded bytes, or -1 where it is not known yet.
	Layer(name string, size int64) Bar
}

// Bar is one layer on its way. Exactly one of Present, Done and Fail ends it;
// later calls do nothing.
type Bar interface {
	Add(n int) // n more decoded bytes went by
	Present()  // the other side has it already: it does not travel
	Done()     // it has arrived
	Fail()     // it has not
}

// NoProgress is a Progress that tells nobody.
type NoProgress struct{}

// Status does nothing.
func (NoProgress) Status(string) {}

// Note does nothing.
func (NoProgress) Note(string) {}

// Layer returns a Bar that tells nobody.
func (NoProgress) Layer(string, int64) Bar { return noBar{} }

type noBar struct{}

func (noBar) Add(int)  {}
func (noBar) Present() {}
func (noBar) Done()    {}
func (noBar) Fail()    {}
