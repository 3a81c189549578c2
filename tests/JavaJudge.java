// Prints the result of java.net.URI or of java.time for each line of the standard input: `java JavaJudge.java uri|time`.
// A line is UTF-8 in Base64. `tests/java.py` starts this program.
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.Scanner;

public class JavaJudge {
    public static void main(String[] arguments) {
        Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8);
        while (lines.hasNextLine()) {
            String value = new String(Base64.getDecoder().decode(lines.nextLine()), StandardCharsets.UTF_8);
            System.out.println(judge(arguments[0], value));
        }
    }

    static String judge(String what, String value) {
        try {
            if (what.equals("uri")) { new URI(value); return "True"; }
            return DateTimeFormatter.ISO_OFFSET_DATE_TIME.format(OffsetDateTime.parse(value));
        } catch (Exception refused) {
            return what.equals("uri") ? "False" : "None";
        }
    }
}
