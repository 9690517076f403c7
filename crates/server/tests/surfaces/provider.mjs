// A provider of OpenID Connect for the tests: npm oidc-provider with its own login and consent pages, which take any name
// and password. argv: its port, our callback, our back-channel address. Says "ready" when it listens.
import { createRequire } from 'node:module';
const { default: Provider } = await import(
  createRequire(`${process.env.PROVIDER}/x.js`).resolve('oidc-provider'));
const [port, callback, backchannel] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const client = (more) => ({ token_endpoint_auth_method: 'client_secret_basic', ...more });
const provider = new Provider(issuer, {
  clients: [
    client({
      client_id: 'debvisor', client_secret: 'the secret of the client',
      grant_types: ['authorization_code'], response_types: ['code'], redirect_uris: [callback],
      backchannel_logout_uri: backchannel, backchannel_logout_session_required: true,
    }),
    client({
      client_id: 'robot', client_secret: 'the secret of the robot',
      grant_types: ['client_credentials'], response_types: [], redirect_uris: [],
    }),
  ],
  claims: { openid: ['sub', 'preferred_username', 'groups'], profile: ['name'], email: ['email'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id, preferred_username: id.split('-')[0], name: 'Anna Huber', email: `${id}@example.org`,
      groups: ['debvisor-viewers', 'staff', 'nobody-here'],
    }),
  }),
  features: {
    devInteractions: { enabled: true },
    backchannelLogout: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, audience) => ({
        audience, scope: 'api', accessTokenFormat: 'jwt', accessTokenTTL: 300,
      }),
    },
  },
  pkce: { methods: ['S256'], required: () => true },
  cookies: { keys: ['only for tests'] },
});
provider.on('backchannel.error', (_, error) => console.error('backchannel', error.message, error.cause));
provider.on('server_error', (_, error) => console.error('server', error));
provider.on('grant.error', (_, error) => console.error('grant', error.message, error.error_description));
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
// Nobody reads what it says after that.
for (const out of [process.stdout, process.stderr]) out.on('error', () => {});
// It ends with the test.
process.stdin.on('end', () => process.exit(0)).resume();
