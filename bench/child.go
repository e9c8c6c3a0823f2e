//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
)

// This program is its own hub, bare server and load: each a process of its own, so that
// what they use is not counted to what is measured. They are called over pipes, one line
// of JSON each way, and end when their standard input does.

// childWord, as the first argument, makes this program one of its helpers.
const childWord = "child"

// Kinds of children.
const (
	childHub  = "hub"
	childBare = "bare"
	childLoad = "load"
)

type call struct {
	Do   string          `json:"do"`
	With json.RawMessage `json:"with"`
}

type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// methods are what a child can be asked to do.
type methods map[string]func(with json.RawMessage) (any, error)

// method makes one of a function with typed arguments.
func method[A, R any](do func(A) (R, error)) func(json.RawMessage) (any, error) {
	return func(with json.RawMessage) (any, error) {
		var a A
		if err := json.Unmarshal(with, &a); err != nil {
			return nil, err
		}
		return do(a)
	}
}

// runChild is the main function of a child.
func runChild(kind string, in io.Reader, out io.Writer) error {
	switch kind {
	case childHub:
		return runHub(in, out)
	case childBare:
		return runBare(in, out)
	case childLoad:
		return answerCalls(in, out, loadMethods())
	}
	return fmt.Errorf("no child is called %q", kind)
}

// answerCalls does what in asks for until it ends.
func answerCalls(in io.Reader, out io.Writer, m methods) error {
	lines, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c call
		if err := lines.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := replies.Encode(m.answer(c)); err != nil {
			return err
		}
	}
}

func (m methods) answer(c call) answer {
	do, ok := m[c.Do]
	if !ok {
		return answer{Error: fmt.Sprintf("%q is not understood", c.Do)}
	}
	result, err := do(c.With)
	if err != nil {
		return answer{Error: err.Error()}
	}
	b, err := json.Marshal(result)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Result: b}
}

// child is a running helper, seen by its parent.
type child struct {
	*process
	mu  sync.Mutex // one call at a time
	in  io.WriteCloser
	out *json.Decoder
}

// startChild starts this program once more. The child ends when ctx does.
func startChild(ctx context.Context, kind, dir string, on cpus) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := command(ctx, self, childWord, kind)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not StdoutPipe: Wait would close it under the one who reads.
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = childOut
	p, err := startProcess(ctx, kind, dir, cmd, on)
	_ = childOut.Close() // the child has its own
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	return &child{process: p, in: in, out: json.NewDecoder(bufio.NewReader(out))}, nil
}

// ask calls a method of a child and waits for its answer.
func ask[R any](c *child, do string, with any) (result R, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := json.Marshal(with)
	if err != nil {
		return result, err
	}
	if err := json.NewEncoder(c.in).Encode(call{do, b}); err != nil {
		return result, fmt.Errorf("ask %s to %s: %w: %s", c.name, do, err, c.lastWords())
	}
	var a answer
	if err := c.out.Decode(&a); err != nil {
		return result, fmt.Errorf("ask %s to %s: %w: %s", c.name, do, err, c.lastWords())
	}
	if a.Error != "" {
		return result, fmt.Errorf("ask %s to %s: %s", c.name, do, a.Error)
	}
	return result, json.Unmarshal(a.Result, &result)
}

// stop lets the child end.
func (c *child) stop() error {
	_ = c.in.Close() // fails only when the child has ended
	return c.await()
}
