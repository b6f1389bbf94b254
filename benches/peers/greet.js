// The greeting by workerd: an isolate that is used again for every request.
export default {
  async fetch(request) {
    const { name } = await request.json();
    return Response.json({ greeting: `Hello, ${name.trim()}!` });
  },
};
