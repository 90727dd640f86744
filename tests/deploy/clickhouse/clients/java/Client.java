// What a Java program of finance does: clickhouse-jdbc, compressed (its default) and plain.
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

public class Client {
    static int rows(ResultSet found) throws SQLException {
        int count = 0;
        while (found.next()) {
            count++;
        }
        return count;
    }

    static void check(String[] arguments, String compress) throws SQLException {
        Properties properties = new Properties();
        properties.put("user", arguments[1]);
        properties.put("password", arguments[2]);
        properties.put("compress", compress);
        String url = "jdbc:clickhouse://127.0.0.1:" + arguments[0] + "/metering";
        try (Connection connection = DriverManager.getConnection(url, properties);
                Statement statement = connection.createStatement()) {
            int first = 0;
            try (ResultSet found = statement.executeQuery(
                    "SELECT id, a, b, m, at, toLowCardinality(a) c, toNullable(id) n,"
                            + " toDecimal128(1.5, 6) d FROM t ORDER BY id LIMIT 3")) {
                for (; found.next(); first++) {
                    found.getLong(1);
                    found.getObject(3);
                    found.getObject(4);
                    found.getTimestamp(5);
                    found.getBigDecimal(8);
                }
            }
            long counted;
            try (PreparedStatement prepared = connection.prepareStatement(
                    "SELECT count() FROM t WHERE id > ? AND a != ?")) {
                prepared.setLong(1, 5);
                prepared.setString(2, "it's");
                ResultSet found = prepared.executeQuery();
                found.next();
                counted = found.getLong(1);
            }
            int large = rows(statement.executeQuery("SELECT number, toString(number) FROM numbers(200000)"));
            ResultSet empty = statement.executeQuery("SELECT id, a FROM t WHERE id < 0");
            int columns = empty.next() ? -1 : empty.getMetaData().getColumnCount();
            DatabaseMetaData meta = connection.getMetaData();
            String seen = rows(meta.getTables(null, "metering", "%", null))
                    + " " + rows(meta.getColumns(null, "metering", "t", "%"))
                    + " " + (rows(meta.getSchemas()) > 0) + " " + (rows(meta.getTypeInfo()) > 0);
            statement.setQueryTimeout(20);
            statement.setMaxRows(2);
            int limited = rows(statement.executeQuery("SELECT number FROM numbers(10)"));
            boolean refused = false;
            try {
                statement.execute("DROP TABLE t");
            } catch (SQLException error) {
                refused = error.getMessage().contains("Code: 164");
            }
            System.out.println(compress + " " + connection.isValid(5) + " " + first + " " + counted + " " + large
                    + " " + columns + " " + seen + " " + limited + " " + refused);
        }
    }

    public static void main(String[] arguments) throws SQLException {
        check(arguments, "true");
        check(arguments, "false");
    }
}
