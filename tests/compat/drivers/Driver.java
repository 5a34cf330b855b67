// Apache Kafka's own Java client behind the JSON lines of `driver.py`. A thread per request.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicListing;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Driver {
    static final ObjectMapper JSON = new ObjectMapper();
    static final PrintStream ANSWERS = System.out;

    public static void main(String[] args) throws Exception {
        System.setOut(System.err); // where the client's loggers go: stdout is for answers alone
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = lines.readLine()) != null) {
            JsonNode ask = JSON.readTree(line);
            Thread worker = new Thread(() -> answer(ask));
            worker.setDaemon(true);
            worker.start();
        }
    }

    static void answer(JsonNode ask) {
        ObjectNode said = JSON.createObjectNode().put("id", ask.get("id").asInt());
        try {
            said.set("ok", perform(ask));
        } catch (Throwable thrown) {
            said.set("error", failure(thrown));
        }
        synchronized (ANSWERS) {
            ANSWERS.println(said);
            ANSWERS.flush();
        }
    }

    static ObjectNode failure(Throwable thrown) {
        Throwable error = thrown;
        while ((error instanceof ExecutionException || error.getClass() == org.apache.kafka.common.KafkaException.class)
                && error.getCause() != null) {
            error = error.getCause();
        }
        Errors known = Errors.forException(error);
        ObjectNode told = JSON.createObjectNode().put("message", error.toString());
        if (known == Errors.UNKNOWN_SERVER_ERROR) {
            told.putNull("code");
        } else {
            told.put("code", known.code());
        }
        return told;
    }

    static ObjectNode perform(JsonNode ask) throws Exception {
        ObjectNode group = Groups.perform(ask);
        if (group != null) {
            return group;
        }
        switch (ask.get("op").asText()) {
            case "produce": return produce(ask);
            case "begin_transaction": return beginTransaction(ask);
            case "consume": return consume(ask);
            case "offset": return offset(ask);
            default:
                try (Admin admin = Admin.create(common(ask))) {
                    return administer(admin, ask);
                }
        }
    }

    static ObjectNode administer(Admin admin, JsonNode ask) throws Exception {
        ObjectNode out = JSON.createObjectNode();
        switch (ask.get("op").asText()) {
            case "metadata": {
                ArrayNode brokers = out.putArray("brokers");
                for (Node node : admin.describeCluster().nodes().get()) {
                    brokers.addArray().add(node.id()).add(node.host()).add(node.port());
                }
                Collection<String> names = new ArrayList<>();
                if (ask.get("topics").isNull()) {
                    for (TopicListing listing : admin.listTopics().listings().get()) {
                        names.add(listing.name());
                    }
                } else {
                    ask.get("topics").forEach(name -> names.add(name.asText()));
                }
                ObjectNode topics = out.putObject("topics");
                admin.describeTopics(names).allTopicNames().get().forEach((name, topic) -> {
                    ArrayNode partitions = topics.putArray(name);
                    topic.partitions().forEach(partition -> partitions.add(partition.partition()));
                });
                return out;
            }
            case "create": {
                NewTopic topic = new NewTopic(topic(ask), ask.get("partitions").asInt(), (short) 1);
                admin.createTopics(List.of(topic.configs(configs(ask)))).all().get();
                return out;
            }
            case "delete":
                admin.deleteTopics(List.of(topic(ask))).all().get();
                return out;
            case "delete_records": {
                var before = Map.of(partition(ask), RecordsToDelete.beforeOffset(ask.get("offset").asLong()));
                var low = admin.deleteRecords(before).lowWatermarks().get(partition(ask)).get();
                return out.put("low", low.lowWatermark());
            }
            case "describe": {
                ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic(ask));
                ObjectNode told = out.putObject("configs");
                for (ConfigEntry entry : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
                    told.put(entry.name(), entry.value());
                }
                return out;
            }
            case "alter": {
                List<AlterConfigOp> ops = new ArrayList<>();
                configs(ask).forEach((name, value) ->
                    ops.add(new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
                admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic(ask)), ops))
                    .all().get();
                return out;
            }
            default:
                throw new IllegalArgumentException(ask.get("op").asText());
        }
    }

    static ObjectNode produce(JsonNode ask) throws Exception {
        boolean tiny = ask.get("tiny").asBoolean();
        int giveUp = ask.get("give_up_ms").asInt();
        Properties settings = common(ask);
        settings.put("acks", ask.get("acks").asText());
        settings.put("compression.type", ask.get("codec").asText());
        settings.put("enable.idempotence", ask.get("idempotent").asBoolean());
        settings.put("batch.size", tiny ? 1 : 900_000);
        settings.put("linger.ms", tiny ? 0 : 50);
        settings.put("max.request.size", 4_000_000);
        settings.put("request.timeout.ms", Math.min(30_000, giveUp - 100));
        settings.put("delivery.timeout.ms", giveUp);
        settings.put("max.block.ms", giveUp);
        ArrayNode offsets = JSON.createArrayNode();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : ask.get("records")) {
                List<Header> headers = new ArrayList<>();
                for (JsonNode header : record.get("headers")) {
                    headers.add(new RecordHeader(header.get(0).asText(), raw(header.get(1))));
                }
                Long timestamp = record.get("timestamp").isNull() ? null : record.get("timestamp").asLong();
                sent.add(producer.send(new ProducerRecord<>(topic(ask), ask.get("partition").asInt(), timestamp,
                    raw(record.get("key")), raw(record.get("value")), headers)));
                Thread.sleep(ask.get("pause_ms").asInt());
            }
            for (Future<RecordMetadata> one : sent) {
                RecordMetadata told = one.get();
                if (told.hasOffset()) {
                    offsets.add(told.offset());
                } else {
                    offsets.addNull();
                }
            }
        }
        ObjectNode out = JSON.createObjectNode();
        out.set("offsets", offsets);
        return out;
    }

    static ObjectNode beginTransaction(JsonNode ask) {
        Properties settings = common(ask);
        settings.put("transactional.id", ask.get("transactional_id").asText());
        settings.put("max.block.ms", ask.get("give_up_ms").asInt());
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            producer.beginTransaction();
        }
        return JSON.createObjectNode();
    }

    static ObjectNode consume(JsonNode ask) {
        Properties settings = common(ask);
        settings.put("auto.offset.reset", "none");
        settings.put("enable.auto.commit", false);
        settings.put("allow.auto.create.topics", false);
        settings.put("isolation.level", ask.get("committed").asBoolean() ? "read_committed" : "read_uncommitted");
        settings.put("fetch.max.wait.ms", ask.get("max_wait_ms").asInt());
        settings.put("fetch.min.bytes", ask.get("min_bytes").asInt());
        settings.put("max.poll.records", ask.get("count").asInt());
        settings.put("max.partition.fetch.bytes", 4_000_000);
        ArrayNode records = JSON.createArrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            TopicPartition partition = partition(ask);
            consumer.assign(List.of(partition));
            switch (ask.get("offset").asText()) {
                case "earliest": consumer.seekToBeginning(List.of(partition)); break;
                case "latest": consumer.seekToEnd(List.of(partition)); consumer.position(partition); break;
                default: consumer.seek(partition, ask.get("offset").asLong());
            }
            long deadline = System.nanoTime() + ask.get("timeout_ms").asLong() * 1_000_000;
            while (records.size() < ask.get("count").asInt() && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (records.size() < ask.get("count").asInt()) {
                        records.add(told(record));
                    }
                }
            }
        }
        ObjectNode out = JSON.createObjectNode();
        out.set("records", records);
        return out;
    }

    static ObjectNode told(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode out = JSON.createObjectNode().put("offset", record.offset()).put("timestamp", record.timestamp());
        out.put("key", text(record.key())).put("value", text(record.value()));
        ArrayNode headers = out.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(text(header.value()));
        }
        return out;
    }

    static ObjectNode offset(JsonNode ask) {
        ObjectNode out = JSON.createObjectNode();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(common(ask), new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            TopicPartition partition = partition(ask);
            switch (ask.get("when").asText()) {
                case "earliest": return out.put("offset", consumer.beginningOffsets(List.of(partition)).get(partition));
                case "latest": return out.put("offset", consumer.endOffsets(List.of(partition)).get(partition));
                default:
                    OffsetAndTimestamp found =
                        consumer.offsetsForTimes(Map.of(partition, ask.get("when").asLong())).get(partition);
                    return found == null ? out.putNull("offset") : out.put("offset", found.offset());
            }
        }
    }

    static Properties common(JsonNode ask) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", ask.get("servers").asText());
        settings.put("client.id", ask.get("client_id").asText());
        settings.put("default.api.timeout.ms", 60_000);
        if (!ask.get("ca").isNull()) {
            settings.put("security.protocol", "SSL");
            settings.put("ssl.truststore.type", "PEM");
            settings.put("ssl.truststore.location", ask.get("ca").asText());
        }
        return settings;
    }

    static Map<String, String> configs(JsonNode ask) {
        Map<String, String> configs = new TreeMap<>();
        ask.get("configs").fields().forEachRemaining(field -> configs.put(field.getKey(), field.getValue().asText()));
        return configs;
    }

    static String topic(JsonNode ask) {
        return ask.get("topic").asText();
    }

    static TopicPartition partition(JsonNode ask) {
        return new TopicPartition(topic(ask), ask.get("partition").asInt());
    }

    static byte[] raw(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    static String text(byte[] value) {
        return value == null ? null : Base64.getEncoder().encodeToString(value);
    }
}
