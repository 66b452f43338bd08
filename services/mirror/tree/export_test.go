package tree

// WithAfterRead sets the hook between reading a file and looking at it again.
func (e Engine) WithAfterRead(f func(path string)) Engine {
	e.afterRead = f
	return e
}
