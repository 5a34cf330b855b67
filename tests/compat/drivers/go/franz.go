package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type franz struct{}

func (franz) Code(err error) *int {
	var known *kerr.Error
	if errors.As(err, &known) {
		return intPointer(int(known.Code))
	}
	return nil
}

func (f franz) Perform(ask *Ask) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second+ms(ask.GiveUpMs))
	defer cancel()
	switch ask.Op {
	case "produce":
		return f.produce(ctx, ask)
	case "begin_transaction":
		return f.beginTransaction(ctx, ask)
	case "consume":
		return f.consume(ctx, ask)
	}
	client, err := f.open(ask)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if told, err, done := f.groups(ctx, admin, ask); done {
		return told, err
	}
	return f.administer(ctx, admin, ask)
}

func (f franz) beginTransaction(ctx context.Context, ask *Ask) (map[string]any, error) {
	client, err := f.open(ask, kgo.TransactionalID(ask.TxID))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		return nil, err
	}
	_, _, err = client.ProducerID(ctx) // it asks for one when it needs one
	return map[string]any{}, err
}

func (franz) open(ask *Ask, more ...kgo.Opt) (*kgo.Client, error) {
	options := append([]kgo.Opt{kgo.SeedBrokers(ask.Servers), kgo.ClientID(ask.ClientID),
		kgo.RequestTimeoutOverhead(30 * time.Second)}, more...)
	config, err := ask.tls()
	if err != nil {
		return nil, err
	}
	if config != nil {
		options = append(options, kgo.DialTLSConfig(config))
	}
	return kgo.NewClient(options...)
}

func (franz) administer(ctx context.Context, admin *kadm.Client, ask *Ask) (map[string]any, error) {
	switch ask.Op {
	case "metadata":
		told, err := admin.Metadata(ctx, ask.Topics...)
		if err != nil {
			return nil, err
		}
		brokers := [][]any{}
		for _, broker := range told.Brokers {
			brokers = append(brokers, []any{broker.NodeID, broker.Host, broker.Port})
		}
		topics := map[string][]int32{}
		for name, topic := range told.Topics {
			if topic.Err == nil {
				topics[name] = topic.Partitions.Numbers()
			}
		}
		return map[string]any{"brokers": brokers, "topics": topics}, nil
	case "create":
		configs := map[string]*string{}
		for name, value := range ask.Configs {
			configs[name] = &value
		}
		told, err := admin.CreateTopic(ctx, ask.Partitions, 1, configs, ask.Topic)
		return map[string]any{}, errors.Join(err, told.Err)
	case "delete":
		told, err := admin.DeleteTopic(ctx, ask.Topic)
		return map[string]any{}, errors.Join(err, told.Err)
	case "delete_records":
		offset := int64(ask.Offset.(float64))
		var before kadm.Offsets
		before.AddOffset(ask.Topic, ask.Partition, offset, -1)
		told, err := admin.DeleteRecords(ctx, before)
		if err := errors.Join(err, told.Error()); err != nil {
			return nil, err
		}
		low, _ := told.Lookup(ask.Topic, ask.Partition)
		return map[string]any{"low": low.LowWatermark}, nil
	case "describe":
		told, err := admin.DescribeTopicConfigs(ctx, ask.Topic)
		if err != nil {
			return nil, err
		}
		row, err := told.On(ask.Topic, nil)
		configs := map[string]string{}
		for _, config := range row.Configs {
			configs[config.Key] = config.MaybeValue()
		}
		return map[string]any{"configs": configs}, errors.Join(err, row.Err)
	case "alter":
		var changes []kadm.AlterConfig
		for name, value := range ask.Configs {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
		}
		told, err := admin.AlterTopicConfigs(ctx, changes, ask.Topic)
		for _, one := range told {
			err = errors.Join(err, one.Err)
		}
		return map[string]any{}, err
	case "offset":
		var told kadm.ListedOffsets
		var err error
		switch when := ask.When.(type) {
		case float64:
			told, err = admin.ListOffsetsAfterMilli(ctx, int64(when), ask.Topic)
		case string:
			if when == "earliest" {
				told, err = admin.ListStartOffsets(ctx, ask.Topic)
			} else {
				told, err = admin.ListEndOffsets(ctx, ask.Topic)
			}
		}
		found, _ := told.Lookup(ask.Topic, ask.Partition)
		return map[string]any{"offset": found.Offset}, errors.Join(err, told.Error())
	}
	return nil, errors.New(ask.Op)
}

func (f franz) produce(ctx context.Context, ask *Ask) (map[string]any, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	acks := map[int]kgo.Acks{0: kgo.NoAck(), 1: kgo.LeaderAck(), -1: kgo.AllISRAcks()}
	options := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[ask.Codec]),
		kgo.RequiredAcks(acks[ask.Acks]),
		kgo.AllowAutoTopicCreation(),
		kgo.UnknownTopicRetries(10),
		kgo.ProduceRequestTimeout(30 * time.Second),
		kgo.ProducerBatchMaxBytes(4_000_000),
	}
	if !ask.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	if ask.Tiny {
		options = append(options, kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(1024))
	} else {
		options = append(options, kgo.ProducerLinger(50*time.Millisecond))
	}
	client, err := f.open(ask, options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	// not RecordDeliveryTimeout: it counts from the record's timestamp, which the tests set
	limited, cancel := context.WithTimeout(ctx, ms(ask.GiveUpMs))
	defer cancel()
	offsets := make([]*int64, len(ask.Records))
	failures := make(chan error, len(ask.Records))
	for place := range ask.Records {
		record := &ask.Records[place]
		out := &kgo.Record{
			Topic: ask.Topic, Partition: ask.Partition, Key: record.Key, Value: record.Value, Timestamp: timeOf(record),
		}
		for _, header := range record.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		client.Produce(limited, out, func(done *kgo.Record, err error) {
			if err == nil && ask.Acks != 0 {
				offsets[place] = &done.Offset
			}
			failures <- err
		})
		time.Sleep(ms(ask.PauseMs))
	}
	for range ask.Records {
		if failure := <-failures; failure != nil {
			err = failure
		}
	}
	return map[string]any{"offsets": offsets}, err
}

func (f franz) consume(ctx context.Context, ask *Ask) (map[string]any, error) {
	var from kgo.Offset
	switch offset := ask.Offset.(type) {
	case float64:
		from = kgo.NewOffset().At(int64(offset))
	case string:
		if offset == "earliest" {
			from = kgo.NewOffset().AtStart()
		} else {
			from = kgo.NewOffset().AtEnd()
		}
	}
	options := []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{ask.Topic: {ask.Partition: from}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(ms(ask.MaxWaitMs)),
		kgo.FetchMinBytes(int32(ask.MinBytes)),
	}
	if ask.Committed {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	client, err := f.open(ask, options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	limited, cancel := context.WithDeadline(ctx, ask.deadline())
	defer cancel()
	records := []Record{}
	for len(records) < ask.Count && limited.Err() == nil {
		fetched := client.PollFetches(limited)
		for _, failure := range fetched.Errors() {
			if !errors.Is(failure.Err, context.DeadlineExceeded) {
				return nil, failure.Err
			}
		}
		fetched.EachRecord(func(in *kgo.Record) {
			if len(records) == ask.Count {
				return
			}
			out := Record{Offset: in.Offset, Timestamp: millis(in.Timestamp), Key: in.Key, Value: in.Value, Headers: []Header{}}
			for _, header := range in.Headers {
				out.Headers = append(out.Headers, Header{header.Key, header.Value})
			}
			records = append(records, out)
		})
	}
	return map[string]any{"records": records}, nil
}
