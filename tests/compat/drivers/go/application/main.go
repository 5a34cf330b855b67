// A consumer group application: copies every record of one topic to another, at least once, and commits what was copied.
//
//	application franz-go|sarama SERVERS GROUP SOURCE TARGET
//
// A copy's value is the record's partition, offset and value, with spaces between. SIGTERM ends it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type application struct {
	servers, group, source, target string
}

// A short session: another takes over soon when one of us is killed.
const (
	session   = 10 * time.Second
	heartbeat = 500 * time.Millisecond
)

func copied(partition int32, offset int64, value []byte) []byte {
	return fmt.Appendf(nil, "%d %d %s", partition, offset, value)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	app := application{os.Args[2], os.Args[3], os.Args[4], os.Args[5]}
	run := map[string]func(context.Context, application) error{"franz-go": runFranz, "sarama": runSarama}[os.Args[1]]
	if err := run(ctx, app); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
