package zfs

import (
	"reflect"
	"testing"
)

// What a dataset's tree holds of other datasets, wherever these are mounted, is told, and
// nothing else.
func TestChildren(t *testing.T) {
	t.Parallel()
	h := grow(t, on(t, "source"), 1)
	if got, err := h.Children(t.Context(), h.dataset); err != nil || len(got) > 0 {
		t.Errorf("there are %v, %v", got, err)
	}
	at := h.path(h.dataset)
	h.do(t, "create", h.dataset+"/plain")
	h.do(t, "create", h.dataset+"/plain/in it")
	h.do(t, "create", "-o", "mountpoint="+at+"/deep/there", h.dataset+"/moved")
	h.do(t, "create", "-o", "mountpoint="+at+"-beside", h.dataset+"/away")
	h.do(t, "create", "-o", "mountpoint=none", h.dataset+"/nowhere")
	h.do(t, "create", "-o", "canmount=off", h.dataset+"/folder")
	h.do(t, "create", h.dataset+"/folder/leaf")
	h.do(t, "create", h.dataset+"/asleep")
	h.do(t, "unmount", h.dataset+"/asleep")
	h.do(t, "create", "-o", "canmount=noauto", h.dataset+"/manual")
	_, _ = h.try(t, "unmount", h.dataset+"/manual") // zfs-fuse mounts it all the same
	r, err := h.Read(t.Context(), h.dataset, ReadOptions{Job: "job", Dir: at})
	must(t, err)
	defer func() { must(t, r.Close(t.Context())) }()
	got, err := h.Children(t.Context(), h.dataset)
	must(t, err)
	want := []Child{
		{h.dataset + "/asleep", "asleep"}, {h.dataset + "/folder/leaf", "folder/leaf"}, {h.dataset + "/moved", "deep/there"},
		{h.dataset + "/plain", "plain"}, {h.dataset + "/plain/in it", "plain/in it"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("there are\n%v\nand should be\n%v", got, want)
	}
	if _, err := h.Children(t.Context(), h.dataset+"/none"); err == nil {
		t.Error("there are children of nothing")
	}
}

func TestChildrenOfOddAnswers(t *testing.T) {
	for _, out := range []string{"a", "tank/b\ton\tyes\t/b\ntank\ton\tyes\t/\n", "tank\ton\tyes\n"} {
		if got, err := parseChildren("tank", out); err == nil {
			t.Errorf("%q: %v", out, got)
		}
	}
	// Where a dataset is mounted that ZFS does not mount, nobody knows what lies in it.
	for out, want := range map[string][]Child{
		"tank\ton\tno\tlegacy\ntank/b\ton\tyes\tlegacy\n": nil,
		"tank\ton\tno\tnone\ntank/b\ton\tyes\t/none/b\n":  nil,
		"tank\ton\tyes\t/\ntank/b\ton\tyes\t/b\tc\n":      {{"tank/b", "b\tc"}},
		"tank\ton\tyes\t/t\ntank/b\toff\tno\t/t/b\n":      nil,
		"tank\ton\tyes\t/t\ntank/b\tnoauto\tyes\t/t/b\n":  {{"tank/b", "b"}},
		"tank\ton\tyes\t/t\ntank/b\ton\tyes\t/t\n":        nil,
		"tank\ton\tyes\t/t\ntank/b\ton\tyes\t/tt\n":       nil,
		"tank\ton\tyes\t/t\ntank/b\ton\tno\t/t/not yet\n": {{"tank/b", "not yet"}},
	} {
		got, err := parseChildren("tank", out)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", out, got, err)
		}
	}
}
