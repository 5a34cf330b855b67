// Go clients behind the JSON lines of `driver.py`: `driver franz-go`, `driver sarama` or `driver kafka-go`.
// A goroutine per request.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Record is one record on its way in or out; []byte travels as base64, nil as null.
type Record struct {
	Offset    int64    `json:"offset"`
	Timestamp *int64   `json:"timestamp"`
	Key       []byte   `json:"key"`
	Value     []byte   `json:"value"`
	Headers   []Header `json:"headers"`
}

// Header is [name, base64 or null].
type Header struct {
	Name  string
	Value []byte
}

func (h Header) MarshalJSON() ([]byte, error) { return json.Marshal([]any{h.Name, h.Value}) }

func (h *Header) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&h.Name, &h.Value})
}

// Ask is one request.
type Ask struct {
	ID         int               `json:"id"`
	Op         string            `json:"op"`
	Servers    string            `json:"servers"`
	CA         *string           `json:"ca"`
	ClientID   string            `json:"client_id"`
	Topics     []string          `json:"topics"`
	Topic      string            `json:"topic"`
	Partition  int32             `json:"partition"`
	Partitions int32             `json:"partitions"`
	Configs    map[string]string `json:"configs"`
	Records    []Record          `json:"records"`
	Acks       int               `json:"acks"`
	Codec      string            `json:"codec"`
	Idempotent bool              `json:"idempotent"`
	Tiny       bool              `json:"tiny"`
	PauseMs    int               `json:"pause_ms"`
	GiveUpMs   int               `json:"give_up_ms"`
	TxID       string            `json:"transactional_id"`
	Offset     any               `json:"offset"` // a number, "earliest" or "latest"
	When       any               `json:"when"`
	Count      int               `json:"count"`
	TimeoutMs  int               `json:"timeout_ms"`
	Committed  bool              `json:"committed"`
	MaxWaitMs  int               `json:"max_wait_ms"`
	MinBytes   int               `json:"min_bytes"`

	Member      string  `json:"member"`
	Group       string  `json:"group"`
	InstanceID  *string `json:"instance_id"`
	Cooperative bool    `json:"cooperative"`
	AutoCommit  bool    `json:"auto_commit"`
	SessionMs   int     `json:"session_ms"`
	HeartbeatMs int     `json:"heartbeat_ms"`
	Since       int     `json:"since"`
	Metadata    *string `json:"metadata"`
}

// Failed is a client's error with Kafka's code, nil where it has none.
type Failed struct {
	Code    *int   `json:"code"`
	Message string `json:"message"`
}

// Client is what each of the three offers.
type Client interface {
	Perform(ask *Ask) (map[string]any, error)
	Join(ask *Ask) (Member, error)
	Code(err error) *int
}

func main() {
	client := map[string]Client{"franz-go": franz{}, "sarama": saramaClient{}, "kafka-go": segmentio{}}[os.Args[1]]
	var lock sync.Mutex
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		go func() {
			answer, err := json.Marshal(perform(client, line))
			if err != nil {
				panic(err)
			}
			lock.Lock()
			defer lock.Unlock()
			os.Stdout.Write(append(answer, '\n'))
		}()
	}
}

func perform(client Client, line []byte) map[string]any {
	var ask Ask
	if err := json.Unmarshal(line, &ask); err != nil {
		panic(err)
	}
	result, err, done := members.perform(client, &ask)
	if !done {
		result, err = client.Perform(&ask)
	}
	if err != nil {
		return map[string]any{"id": ask.ID, "error": Failed{client.Code(err), fmt.Sprintf("%T: %v", err, err)}}
	}
	return map[string]any{"id": ask.ID, "ok": result}
}

func (ask *Ask) tls() (*tls.Config, error) {
	if ask.CA == nil {
		return nil, nil
	}
	pem, err := os.ReadFile(*ask.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots}, nil
}

func (ask *Ask) deadline() time.Time {
	return time.Now().Add(time.Duration(ask.TimeoutMs) * time.Millisecond)
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func intPointer(n int) *int { return &n }

func timeOf(record *Record) time.Time {
	if record.Timestamp == nil {
		return time.Time{}
	}
	return time.UnixMilli(*record.Timestamp)
}

func millis(at time.Time) *int64 {
	n := at.UnixMilli()
	return &n
}
