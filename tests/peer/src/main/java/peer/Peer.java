package peer;

import java.time.Duration;
import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Runs one pipeline on Kafka Streams until it is told to end. What it costs is measured from outside, by the same
 * means as for Sandbar. Settings come as arguments {@code name=value} and win over the ones here.
 */
public final class Peer {
    private static final Consumed<byte[], byte[]> BYTES = Consumed.with(Serdes.ByteArray(), Serdes.ByteArray());
    private static final Produced<byte[], byte[]> TO_BYTES = Produced.with(Serdes.ByteArray(), Serdes.ByteArray());
    private static final Duration WINDOW = Duration.ofMinutes(1);

    private Peer() {}

    public static void main(String[] arguments) throws InterruptedException {
        String pipeline = arguments[0];
        Properties settings = settings();
        for (int index = 1; index < arguments.length; index++) {
            String[] pair = arguments[index].split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        String input = take(settings, "input");
        String table = take(settings, "table");
        String output = take(settings, "output");
        KafkaStreams streams = new KafkaStreams(topology(pipeline, input, table, output), settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    ended.countDown();
                    return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
        Runtime.getRuntime()
                .addShutdownHook(
                        new Thread(
                                () -> {
                                    System.out.println("commits " + commits(streams));
                                    streams.close(Duration.ofSeconds(30));
                                }));
        streams.start();
        ended.await();
        System.exit(1);
    }

    /** What the documentation of Kafka Streams advises for production, as far as one broker allows it. */
    private static Properties settings() {
        Properties settings = new Properties();
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.producerPrefix("acks"), "all");
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        return settings;
    }

    /** The commits of all stream threads so far. */
    private static long commits(KafkaStreams streams) {
        return streams.metrics().entrySet().stream()
                .filter(entry -> entry.getKey().name().equals("commit-total"))
                .filter(entry -> entry.getKey().group().equals("stream-thread-metrics"))
                .mapToLong(entry -> ((Number) entry.getValue().metricValue()).longValue())
                .sum();
    }

    private static String take(Properties settings, String name) {
        Object value = settings.remove(name);
        if (value == null) {
            throw new IllegalArgumentException("the argument " + name + "=… is missing");
        }
        return value.toString();
    }

    private static Topology topology(String pipeline, String input, String table, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<byte[], byte[]> source = builder.stream(input, BYTES);
        switch (pipeline) {
            case "uppercase" -> source.mapValues(Peer::uppercase).to(output, TO_BYTES);
            case "count-rocksdb" -> count(source, output, Stores.persistentKeyValueStore("counts"));
            case "count-memory" -> count(source, output, Stores.inMemoryKeyValueStore("counts"));
            case "window" -> window(source, output);
            case "join" -> join(source, builder, table, output);
            default -> throw new IllegalArgumentException("there is no pipeline " + pipeline);
        }
        return builder.build();
    }

    /** On the bytes, which costs less than by way of a String. */
    private static byte[] uppercase(byte[] value) {
        byte[] text = value.clone();
        for (int index = 0; index < text.length; index++) {
            if (text[index] >= 'a' && text[index] <= 'z') {
                text[index] -= 'a' - 'A';
            }
        }
        return text;
    }

    /** Every record has its key already, so nothing is repartitioned. */
    private static void count(KStream<byte[], byte[]> source, String output, KeyValueBytesStoreSupplier store) {
        Materialized<byte[], Long, KeyValueStore<Bytes, byte[]>> counts =
                Materialized.<byte[], Long>as(store).withKeySerde(Serdes.ByteArray()).withValueSerde(Serdes.Long());
        source.groupByKey(Grouped.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .count(counts)
                .toStream()
                .to(output, Produced.with(Serdes.ByteArray(), Serdes.Long()));
    }

    /** Windows of a minute, kept for a day. */
    private static void window(KStream<byte[], byte[]> source, String output) {
        Materialized<byte[], Long, WindowStore<Bytes, byte[]>> counts =
                Materialized.<byte[], Long, WindowStore<Bytes, byte[]>>as("windows")
                        .withKeySerde(Serdes.ByteArray())
                        .withValueSerde(Serdes.Long());
        source.groupByKey(Grouped.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, Duration.ofDays(1)))
                .count(counts)
                .toStream()
                .to(
                        output,
                        Produced.with(
                                new WindowedSerdes.TimeWindowedSerde<>(Serdes.ByteArray(), WINDOW.toMillis()),
                                Serdes.Long()));
    }

    private static void join(KStream<byte[], byte[]> source, StreamsBuilder builder, String table, String output) {
        KTable<byte[], byte[]> rows =
                builder.table(table, BYTES, Materialized.as(Stores.persistentKeyValueStore("rows")));
        source.join(rows, Peer::joined, Joined.with(Serdes.ByteArray(), Serdes.ByteArray(), Serdes.ByteArray()))
                .to(output, TO_BYTES);
    }

    private static byte[] joined(byte[] value, byte[] row) {
        byte[] both = Arrays.copyOf(value, value.length + 1 + row.length);
        both[value.length] = '|';
        System.arraycopy(row, 0, both, value.length + 1, row.length);
        return both;
    }
}
