"""The bounds of a reader's query. Pure.

The constants bound the request. These settings of `QuerySettings` bound the work and the answer:

| setting | bound |
|---|---|
| `query_timeout_s` | the seconds of one query, in MongoDB too |
| `search_s`, `search_keys` | the seconds and the first chunk of a search through events that do not match |
| `page_bytes` | the bytes of one page, by the sizes of its events in MongoDB |
| `statistics_days` | the days of one range of statistics |

`AdminSettings` has two more bounds of time: `export_timeout_s` and `statistics_timeout_s`.
"""

MAX_PARAMETERS = 200
"""The largest number of parameters in a query string."""

MAX_LIMIT = 1000
"""The largest page in items, as the bound of the parameter `limit`."""

MAX_TYPES = 50
"""The largest number of event types in a filter. For every type MongoDB merges an ordered scan. It sorts in memory
beyond 200 scans."""
