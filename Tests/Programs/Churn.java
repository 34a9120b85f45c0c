// Allocates, keeps and drops arrays in several threads, so that the collector moves what is left.
// Prints "ready" once its heap is in use; then, for each line of standard input, its steps so far.
// Ends with 1 if memory does not hold what was stored there.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;

class Churn {
  static final AtomicLong steps = new AtomicLong();

  static void churn(int seed) {
    Random random = new Random(seed);
    byte[][] kept = new byte[256][];
    while (true) {
      int slot = random.nextInt(kept.length);
      byte[] old = kept[slot];
      if (old != null)
        for (byte value : old)
          if (value != (byte) slot) {
            System.err.println("slot " + slot + " holds " + value);
            Runtime.getRuntime().halt(1);
          }
      byte[] block = new byte[1 + random.nextInt(64 << 10)];
      Arrays.fill(block, (byte) slot);
      kept[slot] = block;
      steps.incrementAndGet();
    }
  }

  public static void main(String[] arguments) throws Exception {
    for (int i = 0; i < 3; i++) {
      int seed = i;
      Thread thread = new Thread(() -> churn(seed));
      thread.setDaemon(true);
      thread.start();
    }
    while (steps.get() < 5000) Thread.sleep(5);
    System.out.println("ready");
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    while (input.readLine() != null) System.out.println(steps.get());
  }
}
