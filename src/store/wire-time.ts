/** RFC 3339 UTC with exactly three fractional digits, made by the database from a timestamp expression. */
export const wireTime = (expression: string): string =>
  `to_char(${expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
