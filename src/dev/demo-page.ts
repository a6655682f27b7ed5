/**
 * The demo relying party's one page. It follows `/events` (server-sent events), so that it changes by itself when a
 * user is signed out; everything from outside is put in as text, never as markup.
 */
export const demoPage = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Demo shop</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; }
  li { list-style: none; margin: .5rem 0; padding: .75rem 1rem; border-radius: .5rem; border-left: .4rem solid; }
  .in { background: #e7f7ec; border-color: #1a9c4b; }
  .out { background: #fdeaea; border-color: #d43a3a; }
  ul { padding: 0; } code { font-size: .85em; }
</style>
</head>
<body>
<h1>Demo shop</h1>
<p>Users of this application, as it sees them. This page changes by itself.</p>
<ul id="logins"></ul>
<p><a href="/login">Sign in</a> with the demo issuer.</p>
<script>
  const list = document.getElementById('logins')
  const row = ({ name, sid, mine, endedAt }) => {
    const item = document.createElement('li')
    item.className = endedAt ? 'out' : 'in'
    const code = document.createElement('code')
    code.textContent = sid
    const state = endedAt ? ' was signed out by a logout token at ' + new Date(endedAt).toLocaleTimeString() : ' is signed in'
    item.append(name + (mine ? ' (you)' : '') + state, document.createElement('br'), 'session ', code)
    return item
  }
  new EventSource('/events').onmessage = ({ data }) => list.replaceChildren(...JSON.parse(data).map(row))
</script>
</body>
</html>
`
