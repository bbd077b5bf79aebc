/** Answers with headers as they stand. */

/**
 * A response with exactly these headers. Hono's `c.body` makes a `Headers` of them first, which on Node
 * takes longer than all else about a small answer; there a plain object is written as it is.
 */
export const reply = (
  body: BodyInit | null,
  status: number,
  headers: Record<string, string>,
): Response => new Response(body, { status, headers })
