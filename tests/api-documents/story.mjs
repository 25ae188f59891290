// The order of the collection's operations, the values that each needs in addition to its example, and the variables
// that each sets. `key`: with a server key. `query`: optional parameters of the URL. `page` is the status in Swagger UI, if an example contains a secret that the server does not know.

/** The collection's variables. */
export const variables = {
  baseUrl: "http://127.0.0.1:8080",
  username: "",
  password: "correct horse battery",
  token: "",
  otherToken: "",
  roomId: "",
  seq: "",
  fileId: "",
  userId: "",
  refreshToken: "",
  sessionId: "",
  serverKey: "",
  keyId: "",
  // The name of a reaction.
  name: "tea",
};

const credentials = { username: "{{username}}", password: "{{password}}" };
/** A unique name. */
const random = "${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}";

/** Creates another account, whose id the next requests use. */
export const anotherUser = [
  "pm.sendRequest({",
  '  url: pm.variables.replaceIn("{{baseUrl}}/api/auth/signup"), method: "POST", header: { "Content-Type": "application/json" },',
  `  body: { mode: "raw", raw: JSON.stringify({ username: \`bob-${random}\`, password: pm.variables.get("password") }) },`,
  '}, (error, answer) => pm.collectionVariables.set("userId", answer.json().user.id));',
];

/** Logs in again. */
export const loggedIn = [
  "pm.sendRequest({",
  '  url: pm.variables.replaceIn("{{baseUrl}}/api/auth/login"), method: "POST", header: { "Content-Type": "application/json" },',
  '  body: { mode: "raw", raw: JSON.stringify({ username: pm.variables.get("username"), password: pm.variables.get("password") }) },',
  '}, (error, answer) => pm.collectionVariables.set("otherToken", answer.json().token));',
];

export const folders = [
  {
    name: "Auth",
    steps: {
      signup: {
        status: 201,
        before: [`pm.collectionVariables.set("username", \`ada-${random}\`);`],
        body: credentials,
        keep: { otherToken: "token" },
      },
      login: { status: 200, body: { ...credentials, refresh: true }, keep: { token: "token", refreshToken: "refreshToken" } },
      refresh: { status: 200, page: 401, body: { refreshToken: "{{refreshToken}}" }, keep: { token: "token" } },
      me: { status: 200 },
      change_account: { status: 200, body: { displayName: "Ada", data: { theme: "dark" } } },
      list_sessions: { status: 200, keep: { sessionId: "items.find((session) => !session.current).id" } },
      jwks: { status: 200 },
    },
  },
  {
    name: "Rooms",
    steps: {
      create_room: { status: 201, body: { name: "Tea of {{username}}", description: "Green and black" }, keep: { roomId: "id" } },
      list_rooms: { status: 200 },
      show_room: { status: 200 },
      change_room: { status: 200, body: { description: "Green, black and white" } },
    },
  },
  {
    name: "Members",
    steps: {
      set_member: { status: 201, body: {}, before: anotherUser },
      list_members: { status: 200 },
      show_user: { status: 200 },
      // The page sends no optional parameters, and one of two is needed.
      list_users: { status: 200, page: 400, query: { ids: "{{userId}}" } },
      remove_member: { status: 204 },
    },
  },
  {
    name: "Messages",
    steps: {
      send_room_message: {
        status: 201, body: { content: "Milk first?", clientMessageId: "{{$guid}}" }, keep: { seq: "seq" },
      },
      get_message: { status: 200 },
      edit_message: { status: 200, body: { content: "Milk last.", clientMessageId: "{{$guid}}" } },
      list_versions: { status: 200 },
      pin_message: { status: 200 },
      list_pins: { status: 200 },
      unpin_message: { status: 200 },
      react_to_message: { status: 200 },
      list_reactions: { status: 200 },
      end_reaction: { status: 200 },
      delete_message: { status: 200 },
      list_room_messages: { status: 200 },
      // The page sends no optional parameters, and one of two is needed.
      list_changes: { status: 200, page: 400, query: { after: "0" } },
      send_message: { status: 201, body: { roomId: "{{roomId}}", content: "Milk first?", clientMessageId: "{{$guid}}" } },
      list_messages: { status: 200 },
      // The page sends no optional parameters, and `q` is needed.
      search_messages: { status: 200, page: 400, query: { q: "milk" } },
    },
  },
  {
    name: "Unread",
    steps: {
      list_unread: { status: 200 },
      mark_read: { status: 200, body: { seq: 1 } },
      list_reads: { status: 200 },
      set_notify: { status: 204, body: { level: "mentions" } },
    },
  },
  {
    name: "Files",
    steps: {
      upload_file: {
        status: 201,
        form: [
          { key: "file", type: "file", src: "openapi.json" },
          { key: "roomId", type: "text", value: "{{roomId}}" },
        ],
        keep: { fileId: "id" },
      },
      list_files: { status: 200 },
      head_file: { status: 200 },
      download_file: { status: 200 },
      link_file: { status: 200 },
      // The file is not the picture of a user.
      show_avatar: { status: 404 },
    },
  },
  {
    name: "Leaving",
    steps: {
      delete_file: { status: 204 },
      delete_room: { status: 204 },
      end_session: { status: 204 },
      logout: { status: 200 },
      logout_by_get: { status: 200, before: loggedIn, token: "{{otherToken}}" },
      change_password: {
        status: 204, before: loggedIn, token: "{{otherToken}}",
        body: { currentPassword: "{{password}}", newPassword: "staple battery horse" },
      },
      end_sessions: { status: 204, body: { current: false }, token: "{{otherToken}}" },
      reset_password: { status: 403, body: { token: "cfp_unknown", newPassword: "battery staple horse" } },
      delete_account: { status: 204, page: 403, body: { password: "staple battery horse" }, token: "{{otherToken}}" },
    },
  },
  {
    name: "Admin",
    steps: {
      create_key: { status: 201, key: true, body: { scopes: ["rooms", "messages"] } },
      list_keys: { status: 200, key: true, keep: { keyId: "items.at(-1).id" } },
      put_user: {
        status: 200, key: true, before: [`pm.collectionVariables.set("username", \`carl-${random}\`);`],
        body: { username: "{{username}}", displayName: "Carl" },
      },
      issue_token: { status: 200, key: true, body: { userId: "{{userId}}", ttl: 3600 } },
      create_invite: { status: 201, key: true, body: { uses: 10 } },
      suspend_user: { status: 204, key: true },
      restore_user: { status: 204, key: true },
      end_sessions_of_user: { status: 204, key: true },
      delete_user: { status: 204, key: true },
      list_audit: { status: 200, key: true },
      delete_key: { status: 204, key: true },
    },
  },
];
