package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/firedrill/firedrill/services/reporter"
)

// reporterWait bounds the wait for what the reporter knows: a list without it is
// better than none.
const reporterWait = 5 * time.Second

// rejectedError says that there is no drill because its request was rejected, and why.
type rejectedError struct{ reporter.Rejection }

func (e *rejectedError) Error() string {
	why := e.Why()
	if e.Reason == "" && len(e.Problems) > 1 {
		why = e.Problems.Error()
	}
	return fmt.Sprintf("%s: rejected on %s, so there is no such drill: %s", e.Drill, e.Asked.Format(time.RFC3339), why)
}

// rejection asks the reporter whether the request behind a drill's id was rejected;
// nil when it was not, or when nobody can say.
func rejection(ctx context.Context, s *session, id string) *rejectedError {
	ctx, cancel := context.WithTimeout(ctx, reporterWait)
	defer cancel()
	question, err := json.Marshal(reporter.Question{Drill: id})
	if err != nil {
		return nil
	}
	answer, err := s.ask(ctx, "status", question)
	var no rejectedError
	if err != nil || json.Unmarshal(answer, &no.Rejection) != nil || no.State != reporter.StateRejected {
		return nil
	}
	return &no
}

// rejections asks the reporter for the latest rejected requests.
func rejections(ctx context.Context, s *session) ([]reporter.Rejection, error) {
	ctx, cancel := context.WithTimeout(ctx, reporterWait)
	defer cancel()
	answer, err := s.ask(ctx, "list", nil)
	if err != nil {
		return nil, err
	}
	var lines []reporter.Line
	if err := json.Unmarshal(answer, &lines); err != nil {
		return nil, err
	}
	var out []reporter.Rejection
	for _, l := range lines {
		if l.Rejection != nil {
			out = append(out, *l.Rejection)
		}
	}
	return out, nil
}
