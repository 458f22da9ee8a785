package sock

import "golang.org/x/sys/unix"

func init() { passing = append(passing, unix.ENONET) }
