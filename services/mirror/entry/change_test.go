package entry

import "testing"

func TestWhatChangesShow(t *testing.T) {
	none, object, later, inode := Change{}, Change{CTime: 5}, Change{CTime: 6}, Change{Inode: 1, CTime: 5}
	for _, c := range []struct {
		a, b  Change
		shows bool
	}{
		{none, none, false}, {none, object, false}, {inode, none, false}, {object, object, false}, {inode, inode, false},
		{object, later, true}, {inode, object, true}, {inode, Change{Inode: 2, CTime: 5}, true},
	} {
		if c.a.Shows(c.b) != c.shows || c.b.Shows(c.a) != c.shows {
			t.Errorf("%+v and %+v show %t", c.a, c.b, !c.shows)
		}
	}
	if none.OfInode() || object.OfInode() || !inode.OfInode() {
		t.Error("only an inode is one")
	}
}
