package echo

import (
	"fmt"
	"time"
)

// The errors that both worlds share.

func unread(err error) error { return fmt.Errorf("read request: %w", err) }

func silent(timeout time.Duration) error { return fmt.Errorf("no request within %v", timeout) }

func unsent(total, left int64, err error) error {
	return fmt.Errorf("send reply: %d of %d bytes sent: %w", total-left, total, err)
}

func refused(total, left int64, timeout time.Duration) error {
	return fmt.Errorf("send reply: %d of %d bytes sent, none taken for %v", total-left, total, timeout)
}
