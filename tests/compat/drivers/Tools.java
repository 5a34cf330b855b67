import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools one after the other in one process: starting one for each would take seconds.
 *
 * A line asks for a run: the class, then its arguments, each as base64, with blanks between them. A line answers it: the
 * exit code, what was written to stdout, and to stderr, both as base64.
 */
public final class Tools {
    /** What a tool's exit throws, so that this process stays. Some tools catch it, and exit once more: the first counts. */
    private static final class Ended extends Error {
        static Ended first;
        final int code;

        Ended(int code) {
            super(null, null, false, false);
            this.code = code;
            first = first == null ? this : first;
        }
    }

    /** Stands where a stream of the process was; tools, and Scala's console, may keep it. */
    private static final class Caught extends OutputStream {
        private ByteArrayOutputStream held = new ByteArrayOutputStream();

        @Override
        public synchronized void write(int one) {
            held.write(one);
        }

        @Override
        public synchronized void write(byte[] bytes, int from, int length) {
            held.write(bytes, from, length);
        }

        synchronized String taken() {
            ByteArrayOutputStream was = held;
            held = new ByteArrayOutputStream();
            // in front a letter, so that nothing is not an empty word
            return "x" + Base64.getEncoder().encodeToString(was.toByteArray());
        }
    }

    public static void main(String[] none) throws Exception {
        PrintStream answers = System.out;
        Caught out = new Caught();
        Caught err = new Caught();
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
        Exit.setExitProcedure((code, message) -> {
            throw new Ended(code);
        });
        Exit.setHaltProcedure((code, message) -> {
            throw new Ended(code);
        });
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            for (int at = 0; at < words.length; at++) {
                words[at] = new String(Base64.getDecoder().decode(words[at].substring(1)), StandardCharsets.UTF_8);
            }
            int code = run(words);
            System.out.flush();
            answers.println(code + " " + out.taken() + " " + err.taken());
            answers.flush();
        }
    }

    private static int run(String[] words) {
        String[] args = new String[words.length - 1];
        System.arraycopy(words, 1, args, 0, args.length);
        Ended.first = null;
        try {
            Class.forName(words[0]).getMethod("main", String[].class).invoke(null, (Object) args);
            return Ended.first == null ? 0 : Ended.first.code;
        } catch (InvocationTargetException thrown) {
            if (Ended.first != null) {
                return Ended.first.code;
            }
            thrown.getCause().printStackTrace();
            return 1;
        } catch (ReflectiveOperationException missing) {
            missing.printStackTrace();
            return 1;
        }
    }
}
