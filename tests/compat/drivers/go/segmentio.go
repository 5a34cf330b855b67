package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

type segmentio struct{}

func (segmentio) Code(err error) *int {
	var known kafka.Error
	if errors.As(err, &known) {
		return intPointer(int(known))
	}
	var many kafka.WriteErrors
	if errors.As(err, &many) {
		for _, one := range many {
			if errors.As(one, &known) {
				return intPointer(int(known))
			}
		}
	}
	return nil
}

func (segmentio) client(ask *Ask) (*kafka.Client, *kafka.Transport, error) {
	config, err := ask.tls()
	transport := &kafka.Transport{ClientID: ask.ClientID, TLS: config, MetadataTTL: 200 * time.Millisecond, DialTimeout: 30 * time.Second}
	return &kafka.Client{Addr: kafka.TCP(ask.Servers), Timeout: 60 * time.Second, Transport: transport}, transport, err
}

func (s segmentio) Perform(ask *Ask) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	client, transport, err := s.client(ask)
	if err != nil {
		return nil, err
	}
	defer transport.CloseIdleConnections()
	switch ask.Op {
	case "produce":
		return s.produce(ctx, ask, transport)
	case "consume":
		return s.consume(ctx, ask)
	}
	if told, err, done := s.groups(ctx, ask, client); done {
		return told, err
	}
	return s.administer(ctx, ask, client)
}

func (segmentio) administer(ctx context.Context, ask *Ask, client *kafka.Client) (map[string]any, error) {
	switch ask.Op {
	case "metadata":
		told, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: ask.Topics})
		if err != nil {
			return nil, err
		}
		brokers := [][]any{}
		for _, broker := range told.Brokers {
			brokers = append(brokers, []any{broker.ID, broker.Host, broker.Port})
		}
		topics := map[string][]int{}
		for _, topic := range told.Topics {
			if topic.Error == nil {
				for _, partition := range topic.Partitions {
					topics[topic.Name] = append(topics[topic.Name], partition.ID)
				}
			}
		}
		return map[string]any{"brokers": brokers, "topics": topics}, nil
	case "create":
		config := kafka.TopicConfig{Topic: ask.Topic, NumPartitions: int(ask.Partitions), ReplicationFactor: 1}
		for name, value := range ask.Configs {
			config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
		}
		told, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
		if err == nil {
			err = told.Errors[ask.Topic]
		}
		return map[string]any{}, err
	case "delete":
		told, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{ask.Topic}})
		if err == nil {
			err = told.Errors[ask.Topic]
		}
		return map[string]any{}, err
	case "describe":
		told, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: ask.Topic}},
		})
		if err != nil {
			return nil, err
		}
		configs := map[string]string{}
		for _, row := range told.Resources[0].ConfigEntries {
			configs[row.ConfigName] = row.ConfigValue
		}
		return map[string]any{"configs": configs}, told.Resources[0].Error
	case "alter":
		var changes []kafka.IncrementalAlterConfigsRequestConfig
		for name, value := range ask.Configs {
			changes = append(changes, kafka.IncrementalAlterConfigsRequestConfig{
				Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet,
			})
		}
		told, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{
				{ResourceType: kafka.ResourceTypeTopic, ResourceName: ask.Topic, Configs: changes},
			},
		})
		if err == nil {
			err = told.Resources[0].Error
		}
		return map[string]any{}, err
	case "offset":
		request := kafka.LastOffsetOf(int(ask.Partition))
		switch when := ask.When.(type) {
		case float64:
			request = kafka.TimeOffsetOf(int(ask.Partition), time.UnixMilli(int64(when)))
		case string:
			if when == "earliest" {
				request = kafka.FirstOffsetOf(int(ask.Partition))
			}
		}
		told, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
			Topics: map[string][]kafka.OffsetRequest{ask.Topic: {request}},
		})
		if err != nil {
			return nil, err
		}
		return offsetOf(ask, told.Topics[ask.Topic][0])
	}
	return nil, errors.New(ask.Op)
}

func offsetOf(ask *Ask, found kafka.PartitionOffsets) (map[string]any, error) {
	if found.Error != nil {
		return nil, found.Error
	}
	switch ask.When {
	case "earliest":
		return map[string]any{"offset": found.FirstOffset}, nil
	case "latest":
		return map[string]any{"offset": found.LastOffset}, nil
	}
	for offset := range found.Offsets {
		if offset >= 0 {
			return map[string]any{"offset": offset}, nil
		}
	}
	return map[string]any{"offset": nil}, nil
}

func (segmentio) produce(ctx context.Context, ask *Ask, transport *kafka.Transport) (map[string]any, error) {
	codecs := map[string]kafka.Compression{
		"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}
	partition := int(ask.Partition)
	writer := &kafka.Writer{
		Addr: kafka.TCP(ask.Servers), Topic: ask.Topic, Transport: transport,
		Balancer:               kafka.BalancerFunc(func(kafka.Message, ...int) int { return partition }),
		RequiredAcks:           kafka.RequiredAcks(ask.Acks),
		Compression:            codecs[ask.Codec],
		BatchBytes:             4_000_000,
		BatchTimeout:           5 * time.Millisecond,
		MaxAttempts:            10,
		ReadTimeout:            30 * time.Second, // of an answer: what is sent again is there twice
		WriteTimeout:           30 * time.Second,
		AllowAutoTopicCreation: true,
	}
	defer writer.Close()
	var messages []kafka.Message
	for place := range ask.Records {
		record := &ask.Records[place]
		message := kafka.Message{Key: record.Key, Value: record.Value, Time: timeOf(record)}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: header.Name, Value: header.Value})
		}
		messages = append(messages, message)
	}
	limited, cancel := context.WithTimeout(ctx, ms(ask.GiveUpMs))
	defer cancel()
	for {
		err := writer.WriteMessages(limited, messages...)
		// a topic in the making: its README asks the user to try again
		if limited.Err() != nil || !(errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, kafka.LeaderNotAvailable)) {
			return map[string]any{"offsets": make([]*int64, len(messages))}, err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (segmentio) consume(ctx context.Context, ask *Ask) (map[string]any, error) {
	config, err := ask.tls()
	if err != nil {
		return nil, err
	}
	isolation := kafka.ReadUncommitted
	if ask.Committed {
		isolation = kafka.ReadCommitted
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{ask.Servers}, Topic: ask.Topic, Partition: int(ask.Partition),
		Dialer:         &kafka.Dialer{ClientID: ask.ClientID, TLS: config, Timeout: 30 * time.Second},
		MaxWait:        ms(ask.MaxWaitMs),
		MaxAttempts:    10,
		MinBytes:       ask.MinBytes,
		MaxBytes:       4_000_000,
		IsolationLevel: isolation,
	})
	defer func() { go reader.Close() }() // it waits for the poll under way
	from := kafka.LastOffset
	switch offset := ask.Offset.(type) {
	case float64:
		from = int64(offset)
	case string:
		if offset == "earliest" {
			from = kafka.FirstOffset
		}
	}
	if err := reader.SetOffset(from); err != nil {
		return nil, err
	}
	limited, cancel := context.WithDeadline(ctx, ask.deadline())
	defer cancel()
	records := []Record{}
	for len(records) < ask.Count {
		in, err := reader.ReadMessage(limited)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		out := Record{Offset: in.Offset, Timestamp: millis(in.Time), Key: in.Key, Value: in.Value, Headers: []Header{}}
		for _, header := range in.Headers {
			out.Headers = append(out.Headers, Header{header.Key, header.Value})
		}
		records = append(records, out)
	}
	return map[string]any{"records": records}, nil
}

func splitAddress(address string) (string, int, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(text)
	return host, port, err
}
