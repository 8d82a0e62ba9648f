package peer;

import java.time.Duration;
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
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Runs one pipeline on Kafka Streams until it is told to end. What it costs is measured from outside, by the same
 * means as for Sandbar. Settings come as arguments {@code name=value} and win over the ones here.
 */
public final class Peer {
    private Peer() {}

    public static void main(String[] arguments) throws InterruptedException {
        String pipeline = arguments[0];
        Properties settings = settings();
        for (int index = 1; index < arguments.length; index++) {
            String[] pair = arguments[index].split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        String input = take(settings, "input");
        String output = take(settings, "output");
        KafkaStreams streams = new KafkaStreams(topology(pipeline, input, output), settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(
                error -> {
                    error.printStackTrace();
                    ended.countDown();
                    return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
                });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(30))));
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

    private static String take(Properties settings, String name) {
        Object value = settings.remove(name);
        if (value == null) {
            throw new IllegalArgumentException("the argument " + name + "=… is missing");
        }
        return value.toString();
    }

    private static Topology topology(String pipeline, String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<byte[], byte[]> source =
                builder.stream(input, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()));
        switch (pipeline) {
            case "pass-through" -> source.to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
            case "count-rocksdb" -> count(source, output, Stores.persistentKeyValueStore("counts"));
            case "count-memory" -> count(source, output, Stores.inMemoryKeyValueStore("counts"));
            default -> throw new IllegalArgumentException("there is no pipeline " + pipeline);
        }
        return builder.build();
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
}
